"""From conversations to token ids and loss masks, and packed rows on disk."""
