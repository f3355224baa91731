"""What a testbox is told."""
