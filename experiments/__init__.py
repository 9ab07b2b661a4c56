"""The paper's experiments: studies, trainings, figures and tables. Run from a clone; not part of the wheel."""
