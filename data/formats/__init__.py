"""What a row says, in each format: a conversation or a document, and what of the row is not used."""
