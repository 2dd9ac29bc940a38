package outbox

import "github.com/vedette-edge/vedette/protocol"

// Outbox is safe for concurrent use.
type Outbox struct{}

// Open opens the outbox at path, or makes one; its folder must exist. Open
// records left by a kill become pending. A damaged file is kept beside
// (path + ".damaged") and every good record of it is taken over.
func Open(path string, opt Options) (*Outbox, *Salvage, error) { return nil, nil, nil }

// PutOpen writes a record that is still growing down under a key, replacing
// what was there. It is synced when PutOpen returns.
func (o *Outbox) PutOpen(key string, b *protocol.Body) error { return nil }

// CloseOpen hands the record under key over for sending, with b as its last
// content, in one synced write. The key need not be there.
func (o *Outbox) CloseOpen(key string, b *protocol.Body) error { return nil }

// Append hands records over for sending. They are synced when it returns.
func (o *Outbox) Append(bodies ...*protocol.Body) error { return nil }

// Send gives the oldest pending records their numbers, as far as max records
// fit the sent region (at most protocol.MaxSent), in one synced write. It
// returns everything the server is not known to hold, in order, skips included.
// While the outbox asks for a cursor it returns nothing.
func (o *Outbox) Send(max int) ([]*protocol.Record, error) { return nil, nil }

// Ack takes what the server holds. It may go backwards: then Send returns what
// the server lost, or a skip where that is gone.
func (o *Outbox) Ack(a *protocol.Ack) error { return nil }

// Epochs is what hello tells: the current epoch and those before it that the
// server may not have to their end.
func (o *Outbox) Epochs() []*protocol.Epoch { return nil }

// Stats returns what the outbox holds now.
func (o *Outbox) Stats() Stats { return Stats{} }

// Changed receives a value when there may be something to send.
func (o *Outbox) Changed() <-chan struct{} { return nil }

// Close closes the file. Everything is on disk already.
func (o *Outbox) Close() error { return nil }
