package fsm

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
)

// The state as a tree of the names that its JSON form has, so that two states can be
// compared part by part, and one part replaced. Structs are walked into, and so are
// lists of structs of one length, by index; everything else is a leaf.

// eachChange visits the leaves in which two values of one type differ, in the order of
// their declaration, until visit returns false. It reports whether it never did. Steps of
// an idle member go through it many times a second, so names are looked up only where
// something differs.
func eachChange(before, after reflect.Value, way []turning, visit func(path []string, to reflect.Value) bool) bool {
	switch {
	case before.Kind() == reflect.Struct:
		way = append(way, turning{typ: before.Type()})
		for i := range before.NumField() {
			way[len(way)-1].index = i
			if !eachChange(before.Field(i), after.Field(i), way, visit) {
				return false
			}
		}
		return true
	case walked(before) && walked(after) && before.Len() == after.Len():
		if before.UnsafePointer() == after.UnsafePointer() {
			return true // lists are replaced, never changed in place
		}
		way = append(way, turning{})
		for i := range before.Len() {
			way[len(way)-1].index = i
			if !eachChange(before.Index(i), after.Index(i), way, visit) {
				return false
			}
		}
		return true
	case same(before, after):
		return true
	}
	path, named := pathOf(way)
	return !named || visit(path, after)
}

// turning is a step on the way to a part: the field of a struct, or without a type the
// index in a list.
type turning struct {
	typ   reflect.Type
	index int
}

// pathOf names the parts on the way; false when JSON doesn't have one of them.
func pathOf(way []turning) ([]string, bool) {
	path := make([]string, len(way))
	for i, t := range way {
		if t.typ == nil {
			path[i] = strconv.Itoa(t.index)
			continue
		}
		if path[i] = fieldName(t.typ.Field(t.index)); path[i] == "" {
			return nil, false
		}
	}
	return path, true
}

// same compares two leaves.
func same(a, b reflect.Value) bool {
	switch a.Kind() {
	case reflect.String:
		return a.String() == b.String()
	case reflect.Bool:
		return a.Bool() == b.Bool()
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return a.Int() == b.Int()
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return a.Uint() == b.Uint()
	case reflect.Slice, reflect.Pointer:
		if a.UnsafePointer() == b.UnsafePointer() && (a.Kind() == reflect.Pointer || a.Len() == b.Len()) {
			return true
		}
	}
	return reflect.DeepEqual(a.Interface(), b.Interface())
}

// walked: a list of structs that has elements.
func walked(v reflect.Value) bool {
	return v.Kind() == reflect.Slice && v.Type().Elem().Kind() == reflect.Struct && v.Len() > 0
}

// fieldName is a field's name in JSON; empty for one that JSON doesn't have.
func fieldName(f reflect.StructField) string {
	name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
	if name == "-" {
		return ""
	}
	return name
}

var errNoSuchPart = errors.New("there is no such part")

// put replaces the leaf at a path. Lists on the way are copied, because other copies of
// the state refer to them.
func put(v reflect.Value, path []string, raw json.RawMessage) error {
	if len(path) == 0 {
		fresh := reflect.New(v.Type())
		if err := json.Unmarshal(raw, fresh.Interface()); err != nil {
			return fmt.Errorf("decode: %w", err)
		}
		v.Set(fresh.Elem())
		return nil
	}
	switch {
	case v.Kind() == reflect.Struct:
		i := slices.IndexFunc(reflect.VisibleFields(v.Type()), func(f reflect.StructField) bool { return fieldName(f) == path[0] })
		if i < 0 {
			return errNoSuchPart
		}
		return put(v.Field(i), path[1:], raw)
	case walked(v):
		i, err := strconv.Atoi(path[0])
		if err != nil || i < 0 || i >= v.Len() {
			return errNoSuchPart
		}
		own := reflect.MakeSlice(v.Type(), v.Len(), v.Len())
		reflect.Copy(own, v)
		v.Set(own)
		return put(v.Index(i), path[1:], raw)
	default:
		return errNoSuchPart
	}
}
