// Flows in: a directory with neo4j.conf and perhaps password. Flows out: a Neo4j that serves Bolt until SIGTERM, and
// the line "ready" on standard output once the user neo4j has that password; without the file it has its old one.
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Map;
import org.neo4j.dbms.api.DatabaseManagementServiceBuilder;

public class Neo4jServer {
    public static void main(String[] arguments) throws Exception {
        Path home = Path.of(arguments[0]);
        Path password = home.resolve("password");
        var server = new DatabaseManagementServiceBuilder(home)
                .loadPropertiesFromFile(home.resolve("neo4j.conf"))
                .build();
        Runtime.getRuntime().addShutdownHook(new Thread(server::shutdown));
        try {
            if (Files.exists(password)) {
                server.database("system").executeTransactionally(
                        "ALTER USER neo4j SET PASSWORD $password CHANGE NOT REQUIRED",
                        Map.of("password", Files.readString(password).strip()));
            }
            System.out.println("ready");
        } catch (RuntimeException error) {
            error.printStackTrace();
            System.exit(1); // the server's own threads would keep the process
        }
    }
}
