"""From verdicts to figures: pass@k with intervals, comparisons, the summary, the gate."""
