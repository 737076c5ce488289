# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The deploy agent of a machine: deploys because it saw a key change, without anybody logging in.

    hitless-deploy run CONFIG      settle what is asked of this machine, then end (what `consul watch` calls)
    hitless-deploy watch CONFIG    the same, and go on watching the key in the foreground
    hitless-deploy check CONFIG    say what is wrong with the configuration, and change nothing

A request in nodes/<node>/deployment/<service>/new is accepted once: by compare-and-set on the key `status` beside it,
and only while the run that wrote it still holds its lock. Each later step is a compare-and-set on `status` as well: who
overwrites it (a newer request, a controller that abandoned it) stops this program at its next step, with the machine in
maintenance. What it is doing also stands in a file, so that after a kill -9 or a reboot it goes on where that is safe,
and says "interrupted" where it is not: a command that may have run half is never run again unasked.

Python 3.6 or newer, standard library only. docs/agent-mode.md describes it.
"""

import os
import sys

# It is started by the path of its folder, wherever that is.
sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

from hitless_deploy.agent import Agent, settle_again  # noqa: E402
from hitless_deploy.command import run_command  # noqa: E402
from hitless_deploy.config import read_config  # noqa: E402
from hitless_deploy.errors import Problem, tell  # noqa: E402
from hitless_deploy.store import Store  # noqa: E402


def main(arguments):
    if len(arguments) != 2 or arguments[0] not in ("run", "watch", "check", "command"):
        sys.stderr.write(__doc__)
        return 2
    what, path = arguments
    try:
        config = read_config(path)
        if what == "check":
            return 0
        if what == "command":
            run_command(config, Store(config))
            return 0
        agent = Agent(config, os.path.abspath(path))
        if what == "watch":
            agent.watch()
        return settle_again(agent)
    except Problem as problem:
        tell(problem)
        return 1
    except OSError as error:
        tell(error)
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
