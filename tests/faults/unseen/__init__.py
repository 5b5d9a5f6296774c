"""Programs that were written before the rules were read: `python -m faults.unseen` scores them.

`healthy`, `kinds` and `trainers` have programs as people write them, `faulty` and `faulty_data`
those with one mistake each; `later` has both, written once the rules had been mended.
"""
