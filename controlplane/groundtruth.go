package controlplane

import "github.com/vedette-edge/vedette/protocol"

// onHello tells a device what it does not know yet.
func (s *Server) onHello(device string, h *protocol.Hello) {
	s.desired.OnHello(device, h.GetGeneration())
}
