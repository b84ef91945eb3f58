"""Statistics over seeds: arms of the study, how each converged, and what a difference between two is worth."""
