"""One file per paper: its tables, run here, with the printed number beside ours."""
