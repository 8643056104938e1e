// Runs on the first member, from its own machine: only there may a set be made, and its first user, without a
// password. It does nothing where both are there.
const fs = require("fs");
const known = ["AlreadyInitialized", "Unauthorized"];

const members = [0, 1, 2].map((n) => ({ _id: n, host: `mongodb-${n}.mongodb:27017`, priority: n ? 1 : 2 }));
for (let tries = 0; ; tries++) {
  try {
    rs.initiate({ _id: "rs0", members });
    break;
  } catch (error) {
    if (known.includes(error.codeName)) break;
    if (tries === 120) throw error; // the other members have not come up within four minutes
    sleep(2000);
  }
}

let seen = db.hello();
while (!seen.primary) {
  sleep(500);
  seen = db.hello();
}
if (seen.isWritablePrimary) {
  const pwd = fs.readFileSync("/run/secrets/mongodb/MONGO_PASSWORD", "utf8").trim();
  const roles = [
    { role: "readWrite", db: "gateway" },
    { role: "backup", db: "admin" },
    { role: "restore", db: "admin" },
  ];
  try {
    db.getSiblingDB("admin").createUser({ user: "gateway", pwd, roles });
  } catch (error) {
    if (error.codeName !== "Unauthorized" && error.code !== 51003) throw error; // 51003: there already
  }
}
