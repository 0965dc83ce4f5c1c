"""Side channels of a video: audio, 3D, more frames. See `base.SideChannel`."""
