package fleet

// RingLabel groups devices by how early they get what is new. Those of LabRing
// try candidates before any other device may have them.
const (
	RingLabel = "ring"
	LabRing   = "lab"
)

// InLab says whether labels are those of a lab device.
func InLab(labels map[string]string) bool { return labels[RingLabel] == LabRing }
