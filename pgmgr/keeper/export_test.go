package keeper

// Agree lets tests judge versions that don't exist yet.
var Agree = agree
