// Package demo runs the whole of Vedette on one machine, for real: a control
// plane, eight agents on three sites, publishers, cameras, a link that is cut,
// lenses that fade, a sensor that dies, a retrained model, a damaged one. It
// drives the programs the way people do, over their commands and public APIs,
// and asserts what it claims from the operator API.
//
// The models and the images under models/ were made by train/train.py.
package demo
