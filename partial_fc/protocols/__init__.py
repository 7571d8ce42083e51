"""Published protocols from embeddings: templates one to one and one to many, probes among distractors."""
