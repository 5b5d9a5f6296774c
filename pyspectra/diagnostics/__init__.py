"""Models to judgement: analyse every layer, report, say what it means."""
