package tracking_test

import (
	"github.com/vedette-edge/vedette/controlplane/mlflow"
	"github.com/vedette-edge/vedette/controlplane/tracking"
)

var _ mlflow.Store = (*tracking.Store)(nil)
