"""What a member does beside the loop when its time has come or when it is asked to."""
