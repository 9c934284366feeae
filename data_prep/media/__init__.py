"""Pictures, sound and landmarks of clips: found, decoded, cut, encoded."""
