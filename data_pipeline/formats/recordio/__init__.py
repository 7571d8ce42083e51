"""`.rec` and `.idx`, as MXNet's im2rec and InsightFace write them."""
