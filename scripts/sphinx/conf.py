"""Settings of Sphinx for the pages that antsibull-docs makes of the plugins and roles."""

from __future__ import annotations

from docutils import nodes
from sphinx.application import Sphinx

project = "hitless.consul"
html_title = "hitless.consul"
extensions = ["sphinx_antsibull_ext"]
html_theme = "sphinx_ansible_theme"
pygments_style = "ansible"
highlight_language = "YAML+Jinja"
html_copy_source = False
html_show_sphinx = False

# What the pages refer to in Ansible's own documentation; nothing is fetched to build them.
ANSIBLE = "https://docs.ansible.com/ansible/latest/"
PAGES = {
    "action_plugins": "plugins/action.html",
    "ansible_configuration_settings": "reference_appendices/config.html",
    "callback_plugins": "plugins/callback.html",
    "common_return_values": "reference_appendices/common_return_values.html",
}
BUILTIN = "ansible_collections.ansible.builtin."


def elsewhere(_app: Sphinx, _env: object, node: nodes.Element, content: nodes.TextElement) -> nodes.reference | None:
    """A link for a label of Ansible's documentation, None for one that is really missing."""
    label = node["reftarget"]
    page = PAGES.get(label)
    if label.startswith(BUILTIN):
        page = f"collections/ansible/builtin/{label.removeprefix(BUILTIN)}.html"
    return nodes.reference("", "", content, internal=False, refuri=ANSIBLE + page) if page else None


def setup(app: Sphinx) -> None:
    app.connect("missing-reference", elsewhere)
