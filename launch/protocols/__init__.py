"""Published protocols on their own files: IJB-B and IJB-C, probes among distractors."""
