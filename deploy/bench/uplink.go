package main

import "context"

func (b *bench) onTheWire(context.Context) error { return nil }
