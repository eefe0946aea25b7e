"""Looking through a corpus, kept records and dropped ones, in bounded memory: `query` finds, `terminal` shows."""
