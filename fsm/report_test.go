package fsm

import "testing"

func checkReport(t *testing.T) { t.Helper() }
