"""Running a program that a model wrote: confined, bounded, and swept up after."""
