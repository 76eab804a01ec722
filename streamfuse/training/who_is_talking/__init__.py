"""What the bundle `who-is-talking` is trained on: the recordings, sounds, pictures and rooms that its windows are drawn from."""
