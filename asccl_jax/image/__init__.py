"""Pictures as arrays: warped, resized, cut to the face, blended."""
