"""What runs left behind: find, list, compare, report and prune them. Imports nothing else of the project, and no torch.

`find.all_runs` and `find.find_run` give `Run`s; `table`, `compare`, `report` and `prune` take a list of them.
"""
