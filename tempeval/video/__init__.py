"""From a file or a frame folder to a `Clip`: sampling, decoding, worker processes."""
