"""A U-Net that regresses the follow-up with L1: a row that the paper lacks."""
