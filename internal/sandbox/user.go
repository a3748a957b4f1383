package sandbox

import (
	"errors"
	"fmt"
	"os"
	"os/user"
	"strconv"
)

// account is whom a sandbox runs as.
type account struct {
	name     string
	uid, gid uint32
	switched bool // it isn't the caller
}

// pickUser picks the caller, unless that is root, whom PostgreSQL refuses.
func pickUser() (account, error) {
	if uid := os.Getuid(); uid != 0 {
		return account{name: strconv.Itoa(uid), uid: uint32(uid), gid: uint32(os.Getgid())}, nil
	}
	for _, name := range []string{"postgres", "nobody"} {
		found, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, err1 := strconv.ParseUint(found.Uid, 10, 32)
		gid, err2 := strconv.ParseUint(found.Gid, 10, 32)
		if err := errors.Join(err1, err2); err != nil {
			return account{}, fmt.Errorf("look up user %s: %w", name, err)
		}
		return account{name: name, uid: uint32(uid), gid: uint32(gid), switched: true}, nil
	}
	return account{}, errors.New("PostgreSQL refuses to run as root, and there is neither a user postgres nor nobody: " +
		"run this as another user")
}

// own gives the folder to the account.
func (a account) own(dir string) error {
	if !a.switched {
		return nil
	}
	return os.Chown(dir, int(a.uid), int(a.gid))
}
