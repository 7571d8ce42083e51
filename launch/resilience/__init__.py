"""How a run goes on: what it resumes from, and how it ends when it is told to."""
