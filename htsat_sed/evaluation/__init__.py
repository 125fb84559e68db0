"""Scores of estimated events and presence maps against reference labels.

Every metric keeps its counts by recording and class, so that micro and macro averages, and bootstrap
intervals over recordings, follow from sums of the same numbers. `check` compares the figures with those of
sed_eval, psds_eval, sed_scores_eval and scikit-learn; `docs/evaluation.md` says what each metric means and
where the libraries differ from what one would expect.
"""
