"""Trains the bundle `who-is-talking`: the recordings, sounds, pictures and rooms that its windows are drawn from."""
