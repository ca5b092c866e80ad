"""What every room stands on: errors, the schema base, atomic files, progress, the stage process."""
