"""What a run leaves beside its weights: log, curves, metrics, a results row, a tracker."""
