"""One stored sample for people: verdict, first mismatch, waves."""
