package operator

// Tags of registered versions (MLflow's) that the control plane and its tools
// give and read.
const (
	// TagPublish set to "true" asks `vedette publish --watch` to pack and sign a version.
	TagPublish = "vedette.publish"
	// TagVersion names the release that is made of a version; without it the
	// version's number does.
	TagVersion = "vedette.version"
	// TagRelease holds the digest of the release that was made of a version.
	TagRelease = "vedette.release"
	// TagRetrain holds the id of the retrain request that a version answers.
	TagRetrain = "vedette.retrain"
	// TagProblem says why a version could not be published, for people.
	TagProblem = "vedette.problem"
	// TagDeployable is "true" or "false": whether devices can run a version.
	TagDeployable = "vedette.deployable"
	// TagNotDeployable says why devices cannot run a version, for people.
	TagNotDeployable = "vedette.deployable.reason"
	// TagPrincipal is who was authenticated when a run or a version was made;
	// mlflow.user is what the client says.
	TagPrincipal = "vedette.principal"
)
