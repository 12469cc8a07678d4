"""Learning from noisy labels: teachers, the student, and the choice of the model to ship."""
