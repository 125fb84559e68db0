"""Scores of estimated events and presence maps against reference labels.

Every metric keeps its counts by recording and class, so that micro and macro averages, and bootstrap
intervals over recordings, follow from sums of the same numbers. The counts come from sed_eval and
psds_eval; `docs/evaluation.md` says what each metric means and where the libraries differ from what one
would expect.
"""
