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
// their declaration, until visit returns false. It reports whether it never did.
func eachChange(before, after reflect.Value, path []string, visit func(path []string, to reflect.Value) bool) bool {
	switch {
	case before.Kind() == reflect.Struct:
		for i := range before.NumField() {
			name := fieldName(before.Type().Field(i))
			if name != "" && !eachChange(before.Field(i), after.Field(i), append(path[:len(path):len(path)], name), visit) {
				return false
			}
		}
		return true
	case walked(before) && walked(after) && before.Len() == after.Len():
		if before.UnsafePointer() == after.UnsafePointer() {
			return true // lists are replaced, never changed in place
		}
		for i := range before.Len() {
			if !eachChange(before.Index(i), after.Index(i), append(path[:len(path):len(path)], strconv.Itoa(i)), visit) {
				return false
			}
		}
		return true
	case reflect.DeepEqual(before.Interface(), after.Interface()):
		return true
	default:
		return visit(path, after)
	}
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
