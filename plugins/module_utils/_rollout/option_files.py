# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The user's files and roles of a rollout: where they are looked for (a private helper of this collection).

In an imported playbook ``playbook_dir`` is the collection's, so Ansible would not find what lies beside the user's own.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from ansible_collections.hitless.consul.plugins.module_utils._errors import HitlessError


@dataclass(frozen=True)
class SearchPaths:
    """The paths in which files and roles are looked for.

    :param folders: beside the playbooks on the command line, then the working directory.
    :param role_paths: Ansible's own paths for roles.
    :param included_roles: where Ansible looks for a role that the user's tasks include.
    :param collection_role: whether a role of that full name is installed with a collection.
    :param ignored: files of variables that Ansible does not read although they lie beside the user's playbook.
    """

    folders: Sequence[str] = ()
    role_paths: Sequence[str] = ()
    included_roles: Sequence[str] = ()
    collection_role: Callable[[str], bool] = lambda name: False
    ignored: Sequence[str] = ()


def find_file(path: str, variable: str, paths: SearchPaths) -> str:
    """The absolute path of a tasks file.

    :raises HitlessError: names the paths that were searched.
    """
    path = os.path.expanduser(path)
    candidates = [os.path.normpath(os.path.join(folder, path)) for folder in paths.folders or (os.sep,)]
    found = next((candidate for candidate in candidates if os.path.isfile(candidate)), None)
    if found is None:
        raise _not_found(f"{variable}: there is no file {path}", candidates)
    return found


def find_role(role: str, variable: str, paths: SearchPaths) -> str:
    """The absolute path of a role, or the full name of a collection's.

    :raises HitlessError: names the paths that were searched.
    """
    path = os.path.expanduser(role)
    candidates = [os.path.normpath(os.path.join(folder, "roles", path)) for folder in paths.folders or (os.sep,)]
    if os.sep in path:
        candidates += [os.path.normpath(os.path.join(folder, path)) for folder in paths.folders]
    candidates += [os.path.normpath(os.path.join(folder, path)) for folder in paths.role_paths]
    found = next((candidate for candidate in candidates if os.path.isdir(os.path.join(candidate, "tasks"))), None)
    if found is None and paths.collection_role(role):
        return role
    if found is None:
        raise _not_found(f"{variable}: there is no role {role} (a folder with tasks in it)", candidates)
    return found


def _not_found(problem: str, candidates: Iterable[str]) -> HitlessError:
    return HitlessError(f"{problem}; searched: {', '.join(dict.fromkeys(candidates))}.")
