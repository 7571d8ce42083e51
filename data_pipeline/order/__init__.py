"""Which sample comes when: keyed permutations, functions of (seed, epoch, position)."""
