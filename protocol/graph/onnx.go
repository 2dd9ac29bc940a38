package graph

import (
	"fmt"
	"strconv"

	"google.golang.org/protobuf/encoding/protowire"
)

// datatypes names ONNX element types (TensorProto.DataType) as the Open
// Inference Protocol does.
var datatypes = map[uint64]string{
	1: "FP32", 2: "UINT8", 3: "INT8", 4: "UINT16", 5: "INT16", 6: "INT32", 7: "INT64", 8: "BYTES",
	9: "BOOL", 10: "FP16", 11: "FP64", 12: "UINT32", 13: "UINT64", 16: "BF16",
}

// model reads ModelProto. The graph comes after the walk, because it is walked
// twice itself and the file may hold its parts in any order.
func (d *decoder) model() error {
	var main span
	err := d.walk(span{0, d.size}, func(f field) (err error) {
		switch f.num {
		case 1: // ir_version
			d.g.IRVersion = int64(f.value) //nolint:gosec // protobuf's int64 is this bit pattern
		case 2: // producer_name
			d.g.Producer, err = d.text(f)
		case 3: // producer_version
			d.g.ProducerVersion, err = d.text(f)
		case 7: // graph
			if f.typ != protowire.BytesType || d.sawGraph {
				return fmt.Errorf("%w: it has two graphs or none", ErrFormat)
			}
			main, d.sawGraph = f.body, true
		case 8: // opset_import
			err = d.opset(f)
		case 25: // functions
			err = d.function(f)
		}
		return err
	})
	if err != nil || !d.sawGraph {
		return err
	}
	if err := d.walk(main, d.values); err != nil {
		return err
	}
	return d.walk(main, func(f field) error { return d.part(f, 0) })
}

// opset reads OperatorSetIdProto.
func (d *decoder) opset(f field) error {
	var domain string
	var version int64
	err := d.message(f, func(f field) (err error) {
		switch f.num {
		case 1:
			domain, err = d.text(f)
		case 2:
			version = int64(f.value) //nolint:gosec // protobuf's int64 is this bit pattern
		}
		return err
	})
	if d.g.Opsets[domain] = version; err == nil && len(d.g.Opsets) > MaxList {
		err = fmt.Errorf("%w: more than %d operator sets", ErrBounds, MaxList)
	}
	return err
}

// function reads FunctionProto: its domain, and the domains its nodes need.
func (d *decoder) function(f field) error {
	return d.message(f, func(f field) error {
		switch f.num {
		case 7: // node
			return d.node(f, 0)
		case 10: // domain
			domain, err := d.text(f)
			if err != nil {
				return err
			}
			return mark(d.functions, domain)
		}
		return nil
	})
}

// values reads inputs and outputs of the main GraphProto.
func (d *decoder) values(f field) error {
	switch f.num {
	case 11: // input
		t, err := d.tensor(f)
		if err != nil {
			return err
		}
		d.inputs[t.Name] = true
		return add(&d.g.Inputs, t)
	case 12: // output
		t, err := d.tensor(f)
		if err != nil {
			return err
		}
		return add(&d.g.Outputs, t)
	}
	return nil
}

func add(list *[]Tensor, t Tensor) error {
	if *list = append(*list, t); len(*list) > MaxValues {
		return fmt.Errorf("%w: more than %d inputs or outputs", ErrBounds, MaxValues)
	}
	return nil
}

// part reads what a GraphProto is made of: nodes and initializers.
func (d *decoder) part(f field, depth int) error {
	switch f.num {
	case 1: // node
		return d.node(f, depth)
	case 5: // initializer
		name, err := d.weights(f)
		if err != nil {
			return err
		}
		d.initializer(name, depth)
	case 15: // sparse_initializer: its values carry the name
		return d.message(f, func(f field) error {
			if f.num != 1 && f.num != 2 {
				return nil
			}
			name, err := d.weights(f)
			if err == nil && f.num == 1 {
				d.initializer(name, depth)
			}
			return err
		})
	}
	return nil
}

func (d *decoder) initializer(name string, depth int) {
	d.g.Initializers++
	if depth == 0 && d.inputs[name] {
		d.filled[name] = true
	}
}

// node reads NodeProto: its operator's domain, and graphs and tensors among its
// attributes.
func (d *decoder) node(f field, depth int) error {
	if depth > MaxDepth {
		return fmt.Errorf("%w: graphs inside graphs, more than %d deep", ErrBounds, MaxDepth)
	}
	d.g.Nodes++
	operator := ""
	err := d.message(f, func(f field) (err error) {
		switch f.num {
		case 4: // op_type
			operator, err = d.text(f)
		case 5: // attribute
			return d.message(f, func(f field) error { return d.attribute(f, depth) })
		case 7: // domain
			domain, err := d.text(f)
			if err != nil {
				return err
			}
			return mark(d.domains, domain)
		}
		return err
	})
	if err == nil && operator == "ZipMap" && depth == 0 {
		return d.zipMap(f)
	}
	return err
}

// zipMap reads which classes a ZipMap node (ai.onnx.ml) names, by its output. It
// is what turns a classifier's scores into maps.
func (d *decoder) zipMap(node field) error {
	var output string
	var classes []string
	err := d.message(node, func(f field) (err error) {
		switch f.num {
		case 2: // output
			output, err = d.text(f)
		case 5: // attribute
			err = d.message(f, func(f field) error { return d.classLabels(f, &classes) })
		}
		return err
	})
	if err == nil {
		d.classes[output] = classes
	}
	return err
}

// classLabels reads the labels that one field of an AttributeProto holds: a
// ZipMap has no other lists than classlabels_int64s and classlabels_strings.
func (d *decoder) classLabels(f field, classes *[]string) error {
	switch {
	case f.num == 8 && f.typ == protowire.BytesType: // ints, packed
		return d.packed(f.body, func(v uint64) error { return d.addClass(classes, strconv.FormatInt(int64(v), 10)) }) //nolint:gosec // protobuf's int64 is this bit pattern
	case f.num == 8: // ints
		return d.addClass(classes, strconv.FormatInt(int64(f.value), 10)) //nolint:gosec // protobuf's int64 is this bit pattern
	case f.num == 9: // strings
		label, err := d.text(f)
		if err != nil {
			return err
		}
		return d.addClass(classes, label)
	}
	return nil
}

func (d *decoder) addClass(classes *[]string, label string) error {
	*classes = append(*classes, label)
	if d.labels++; d.labels > MaxClasses {
		return fmt.Errorf("%w: more than %d classes", ErrBounds, MaxClasses)
	}
	return nil
}

// attribute reads the fields of AttributeProto that hold graphs or tensors.
func (d *decoder) attribute(f field, depth int) error {
	switch f.num {
	case 5, 10: // t, tensors
		_, err := d.weights(f)
		return err
	case 6, 11: // g, graphs
		return d.message(f, func(f field) error { return d.part(f, depth+1) })
	case 22, 23: // sparse_tensor, sparse_tensors
		return d.message(f, func(f field) error {
			if f.num != 1 && f.num != 2 {
				return nil
			}
			_, err := d.weights(f)
			return err
		})
	}
	return nil
}

// weights reads TensorProto's name and where its data lies, not the data.
func (d *decoder) weights(f field) (name string, err error) {
	err = d.message(f, func(f field) (err error) {
		switch f.num {
		case 8: // name
			name, err = d.text(f)
		case 13: // external_data
			err = d.externalData(f)
		case 14: // data_location
			if f.value == 1 && len(d.external) == 0 {
				err = mark(d.external, "(not named)")
			}
		}
		return err
	})
	return name, err
}

// externalData reads one StringStringEntryProto; "location" names the file.
func (d *decoder) externalData(f field) error {
	var key, value string
	err := d.message(f, func(f field) (err error) {
		switch f.num {
		case 1:
			key, err = d.text(f)
		case 2:
			value, err = d.text(f)
		}
		return err
	})
	if err != nil || key != "location" {
		return err
	}
	return mark(d.external, value)
}

// tensor reads ValueInfoProto.
func (d *decoder) tensor(f field) (Tensor, error) {
	t := Tensor{Datatype: Other}
	err := d.message(f, func(f field) (err error) {
		switch f.num {
		case 1: // name
			t.Name, err = d.text(f)
		case 2: // type
			err = d.message(f, func(f field) error { return d.valueType(f, &t) })
		}
		return err
	})
	return t, err
}

// valueType reads TypeProto.
func (d *decoder) valueType(f field, t *Tensor) error {
	switch f.num {
	case 1: // tensor_type
		return d.message(f, func(f field) error { return d.tensorType(f, t) })
	case 4: // sequence_type
		t.Datatype = Sequence
		return d.message(f, func(f field) error { // elem_type
			return d.message(f, func(f field) error {
				if f.num != 5 { // map_type
					return nil
				}
				return d.mapType(f, t)
			})
		})
	case 5: // map_type
		t.Datatype = Map
	}
	return nil
}

// mapType reads TypeProto.Map of a sequence's elements: only maps to a number
// say anything of a classifier.
func (d *decoder) mapType(f field, t *Tensor) error {
	key, value := "", Tensor{}
	err := d.message(f, func(f field) error {
		switch f.num {
		case 1: // key_type
			key = datatypes[f.value]
		case 2: // value_type
			return d.message(f, func(f field) error {
				if f.num != 1 { // tensor_type
					return nil
				}
				return d.message(f, func(f field) error { return d.tensorType(f, &value) })
			})
		}
		return nil
	})
	if value.Datatype == "FP32" {
		t.Key = key
	}
	return err
}

// tensorType reads TypeProto.Tensor.
func (d *decoder) tensorType(f field, t *Tensor) error {
	switch f.num {
	case 1: // elem_type
		if name, ok := datatypes[f.value]; ok {
			t.Datatype = name
		}
	case 2: // shape
		t.Shape = []int64{}
		return d.message(f, func(f field) error {
			if f.num != 1 { // dim
				return nil
			}
			if len(t.Shape) == MaxDims {
				return fmt.Errorf("%w: more than %d dimensions", ErrBounds, MaxDims)
			}
			n, err := d.dimension(f)
			t.Shape = append(t.Shape, n)
			return err
		})
	}
	return nil
}

// dimension reads TensorShapeProto.Dimension: its value, or −1 for a name, for
// nothing, and for the zero or less that some exporters write for "free".
func (d *decoder) dimension(f field) (int64, error) {
	n := int64(-1)
	err := d.message(f, func(f field) error {
		if v := int64(f.value); f.num == 1 && v > 0 { //nolint:gosec // protobuf's int64 is this bit pattern
			n = v
		}
		return nil
	})
	return n, err
}
