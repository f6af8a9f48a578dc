"""Several sources of real data under one mixture: shares, findings, comparisons, reports."""
