"""Metrics of estimated events and presence maps against reference labels.

Every metric keeps its counts by recording and class, so that micro and macro averages and bootstrap intervals
over recordings follow from sums of the same numbers. `check` compares the figures with those of sed_eval,
psds_eval, sed_scores_eval and scikit-learn; `docs/evaluation.md` defines the metrics and explains where the
libraries deviate from expectation.
"""
