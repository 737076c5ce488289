"""Simulated deployments: thousands of them, with what goes wrong at random, and every promise looked at all the time.

A number, the seed, makes a scenario (``scenario.py``): hosts, options, how the versions behave, what happens to
machines, what operators say, and where controllers are killed or lose their lock. From then on it decides everything:
the same seed is the same story.

Real is all of ``plugins/module_utils`` that a rollout in a window takes part in, from ``beginning.begin`` to
``finishing.finish``, by the steps of ``plugins/action/rollout_step.py``, and the end of the lock's keeper. In memory
are

* time (``clock.py``): ``time``, ``threading``, ``random`` and ``datetime`` of the collection's modules are those of a
  scheduler. Threads are real, and one of them runs at a time; where it sleeps, waits or asks, the one whose event is
  the earliest goes on.
* Consul (``consul.py``), below the client, at the seam of its transport.
* machines (``machine.py``): process, health check, agent with maintenance, deployment command.
* the plays (``plays.py``): in the order of ``playbooks/rollout.yml``, with Ansible's throttle.

``world.py`` puts these together, ``simulation.py`` starts the same command again until it has told a verdict, and
``promises.py`` looks at what is written, what is done on machines and what the catalog shows. ``faults.py`` breaks
each promise in the product, which has to be found.

Not simulated: batches with hooks between the steps, agent mode, load balancers that are asked, rollbacks by hand,
change windows of the week. Consul itself is as fast, or as late, as ``machine.py`` says; what it really does,
tests/integration holds.
"""
