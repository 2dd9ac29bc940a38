package api

import "github.com/vedette-edge/vedette/protocol/operator"

func runRoutes(b operator.RunReader) []route {
	return []route{
		read("experiments", "/experiments", "Experiments that data scientists tracked, the one that changed last first.", b.Experiments),
		query("runs", "/runs", "Runs of an experiment, or all, by MLflow's filter and order.", b.Runs),
		one("run", "/runs/:run", "One run: parameters, metrics, tags, data, models.", b.Run),
		of("runMetric", "/runs/:run/metric", "The history of one metric of a run.", b.RunMetric),
		of("runFiles", "/runs/:run/files", "One directory of a run's artifacts.", b.RunFiles),
	}
}
