"""Faces set upright: five landmarks moved onto those of the field's template by a similarity transform."""
